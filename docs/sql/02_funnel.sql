-- How far did messages come, by priority?
--
-- Cohort: messages by the time at which they were accepted. Each column is a part of the one before
-- it but for `failed` and `waiting`, which are the rest of `accepted` beside `delivered`.
SELECT
    priority,
    count() AS accepted,
    countIf(dispatched_at IS NOT NULL) AS handed_over,
    countIf(status = 'delivered') AS delivered,
    countIf(status = 'delivered' AND read_at IS NOT NULL) AS read,
    countIf(status = 'failed') AS failed,
    countIf(status IN ('accepted', 'dispatched')) AS waiting
FROM messages
WHERE accepted_at >= now() - INTERVAL 7 DAY AND status != 'rejected'
GROUP BY priority
ORDER BY priority
