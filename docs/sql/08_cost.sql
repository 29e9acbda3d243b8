-- What does a delivered message cost, by channel?
--
-- Cohort: messages by the time at which they were accepted. `cost` is all that was paid for
-- hand-overs on the channel, those that did not arrive included; `delivered` are the messages that
-- the channel brought to their end.
SELECT
    channel,
    currency,
    sum(paid) AS cost,
    sum(arrived) AS delivered,
    if(delivered = 0, NULL, round(toFloat64(cost) / delivered, 6)) AS cost_per_delivered
FROM
(
    SELECT channel, currency, cost AS paid, 0 AS arrived
    FROM attempts
    WHERE accepted_at >= now() - INTERVAL 7 DAY AND currency != ''
    UNION ALL
    SELECT channel, currency, toDecimal128(0, 6) AS paid, 1 AS arrived
    FROM messages
    WHERE accepted_at >= now() - INTERVAL 7 DAY AND status = 'delivered'
)
GROUP BY channel, currency
ORDER BY channel, currency
