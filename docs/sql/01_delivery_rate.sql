-- How much of what was handed to providers arrived, by channel and country, day by day?
--
-- Cohort: messages by the day (UTC) on which they were accepted, so that a busy day does not look
-- like a bad one. `complete` is the share of the receipts due that are in; where it is low, the rate
-- is too early to judge.
SELECT
    toDate(accepted_at) AS day,
    channel,
    country,
    uniqExact(message_id) AS handed_over,
    uniqExactIf(message_id, receipt IN ('delivered', 'read')) AS delivered,
    round(delivered / handed_over, 4) AS rate,
    round(countIf(receipt != '') / greatest(countIf(receipt_due), 1), 4) AS complete
FROM attempts
WHERE accepted_at >= now() - INTERVAL 7 DAY AND result IN ('accepted', 'unknown')
GROUP BY day, channel, country
ORDER BY day, channel, country
