-- What ended in the dead letters, and why?
--
-- By occurred time. `trouble` is the kind (failed: a message without a step left; others are records
-- that could not be processed). `pipeline dead-letters show` has the whole letter.
SELECT
    origin AS stage,
    code AS trouble,
    reason,
    channel,
    count() AS letters,
    min(occurred_at) AS first_at,
    max(occurred_at) AS last_at
FROM events_unique
WHERE kind = 'dead_letter' AND occurred_at >= now() - INTERVAL 7 DAY
GROUP BY stage, trouble, reason, channel
ORDER BY letters DESC, stage, trouble, reason, channel
