-- What goes wrong at which provider, by class and by the provider's own code?
--
-- By occurred time: attempts by when their first request left. An attempt counts when the provider
-- did not take it, when nobody knows whether it did (class and code of the last answer), or when a
-- receipt said later that it failed.
SELECT
    channel,
    provider,
    if(result = 'accepted', receipt_class, error_class) AS class,
    if(result = 'accepted', receipt_code, code) AS its_code,
    count() AS attempts
FROM attempts
WHERE started_at >= now() - INTERVAL 7 DAY AND (result != 'accepted' OR receipt = 'failed')
GROUP BY channel, provider, class, its_code
ORDER BY attempts DESC, channel, provider, class, its_code
