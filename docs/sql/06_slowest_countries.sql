-- Where does delivery take longest?
--
-- Cohort: messages by the time at which they were accepted. Countries with fewer than 10 deliveries
-- say too little and are left out.
SELECT
    country,
    count() AS delivered,
    quantileExact(0.5)(assumeNotNull(latency_ms)) AS p50_ms,
    quantileExact(0.95)(assumeNotNull(latency_ms)) AS p95_ms,
    countIf(fallbacks > 0) AS after_fallback
FROM messages
WHERE accepted_at >= now() - INTERVAL 7 DAY AND status = 'delivered'
GROUP BY country
HAVING delivered >= 10
ORDER BY p95_ms DESC, country
LIMIT 10
