-- Which channels are left for which, why, and what does it save?
--
-- Cohort: messages by the time at which they were accepted. `saved` are those that were delivered by
-- the channel they went on to, or by one behind it. `why` is timed_out for silence, otherwise the
-- class of the error.
SELECT
    hop.1 AS from_channel,
    hop.2 AS to_channel,
    hop.3 AS why,
    count() AS messages,
    countIf(status = 'delivered' AND step >= hop.4) AS saved
FROM messages
ARRAY JOIN arrayZip(arrayPopBack(channels), arrayPopFront(channels), left_for, arrayPopFront(steps)) AS hop
WHERE accepted_at >= now() - INTERVAL 7 DAY
GROUP BY from_channel, to_channel, why
ORDER BY messages DESC, from_channel, to_channel, why
