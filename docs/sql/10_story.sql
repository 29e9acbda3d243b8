-- What happened to one message, in order?
--
-- By occurred time. As it stands here, of the message that took longest of those accepted in the
-- last 7 days; put the id that you look for in place of the first lines: WITH 'id' AS wanted.
WITH
(
    SELECT message_id
    FROM messages
    WHERE accepted_at >= now() - INTERVAL 7 DAY AND settled_at IS NOT NULL
    ORDER BY latency_ms DESC, message_id
    LIMIT 1
) AS wanted
SELECT
    occurred_at,
    kind,
    step,
    channel,
    provider,
    result,
    error_class,
    code,
    reason,
    status
FROM events_unique
WHERE message_id = wanted
ORDER BY occurred_at, _appended_at, kind
