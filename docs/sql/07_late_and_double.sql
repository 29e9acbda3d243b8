-- Who was reached after we had given up, and who was reached twice, at what cost?
--
-- By occurred time: late receipts by when fallback took them in. `cost` is what the hand-overs that
-- reached a person a second time had cost.
SELECT
    channel,
    currency,
    count() AS late_receipts,
    countIf(reason IN ('delivered', 'read')) AS late_deliveries,
    uniqExactIf(message_id, reached_before) AS reached_twice,
    sumIf(cost, reached_before) AS cost
FROM events_unique
WHERE kind = 'late_receipts' AND occurred_at >= now() - INTERVAL 7 DAY
GROUP BY channel, currency
ORDER BY channel, currency
