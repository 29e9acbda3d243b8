-- What people and programs read: every event once, and a line per message.

CREATE VIEW IF NOT EXISTS events_unique AS SELECT * FROM events FINAL;

CREATE VIEW IF NOT EXISTS messages AS
SELECT
    e.tenant AS tenant,
    e.message_id AS message_id,
    any(e.recipient_key) AS recipient_key,
    anyIf(e.priority, e.priority != '') AS priority,
    anyIf(e.category, e.category != '') AS category,
    anyIf(e.campaign, e.campaign != '') AS campaign,
    anyIf(e.country, e.country != '') AS country,
    minIf(e.accepted_at, e.kind = 'accepted') AS accepted_at,
    minIfOrNull(e.occurred_at, e.kind = 'dispatched') AS dispatched_at,
    minIfOrNull(e.occurred_at, e.kind = 'delivered') AS delivered_at,
    minIfOrNull(e.occurred_at, e.kind = 'read') AS read_at,
    minIfOrNull(e.occurred_at, e.kind = 'outcomes') AS settled_at,
    multiIf(
        countIf(e.kind = 'outcomes') > 0, anyIf(e.status, e.kind = 'outcomes'),
        countIf(e.kind IN ('delivered', 'read')) > 0, 'delivered',
        countIf(e.kind = 'dispatched') > 0, 'dispatched',
        'accepted') AS status,
    anyIf(e.reason, e.kind = 'outcomes') AS reason,
    anyIf(e.channel, e.kind = 'outcomes') AS channel,
    anyIf(e.provider, e.kind = 'outcomes') AS provider,
    countIf(e.kind = 'dispatched') AS dispatched,
    countIf(e.kind = 'failed') AS failed,
    countIf(e.kind = 'timed_out') AS timed_out,
    countIf(e.kind = 'late_receipts') AS late_receipts,
    countIf(e.kind = 'late_receipts' AND e.reached_before) AS reached_twice,
    sumIf(e.cost, e.kind = 'outcomes') AS cost,
    anyIf(e.currency, e.kind = 'outcomes') AS currency,
    max(e.in_doubt) AS in_doubt,
    max(e.resent) AS resent
FROM events_unique AS e
WHERE e.message_id != '' AND e.kind NOT IN ('rejected', 'unreadable')
GROUP BY e.tenant, e.message_id;
