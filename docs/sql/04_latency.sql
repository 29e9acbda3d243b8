-- How long does delivery take, by priority?
--
-- Cohort: messages by the time at which they were accepted. From there to the outcome delivered, in
-- milliseconds; messages that failed or still wait have no delivery time and are not in it.
SELECT
    priority,
    count() AS delivered,
    quantileExact(0.5)(assumeNotNull(latency_ms)) AS p50_ms,
    quantileExact(0.95)(assumeNotNull(latency_ms)) AS p95_ms,
    quantileExact(0.99)(assumeNotNull(latency_ms)) AS p99_ms
FROM messages
WHERE accepted_at >= now() - INTERVAL 7 DAY AND status = 'delivered'
GROUP BY priority
ORDER BY priority
