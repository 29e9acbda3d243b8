-- The two tables that people ask most: a row for each attempt, and a row for each message.
--
-- Both count an attempt once by its id, whatever was written twice, and both take every time that
-- a provider claims (`delivered_at`, `read_at`, `refused_at`) as the provider said it.

CREATE OR REPLACE VIEW attempts AS
SELECT * EXCEPT (said)
FROM
(
    SELECT
        h.tenant AS tenant,
        h.message_id AS message_id,
        h.attempt_id AS attempt_id,
        h.command_id AS command_id,
        h.step AS step,
        h.try_no AS try_no,
        h.channel AS channel,
        h.provider AS provider,
        h.country AS country,
        h.priority AS priority,
        h.category AS category,
        h.campaign AS campaign,
        h.accepted_at AS accepted_at,
        h.started_at AS started_at,
        h.latency_ms AS latency_ms,
        h.requests AS requests,
        h.result AS result,
        h.error_class AS error_class,
        h.code AS code,
        h.provider_message_id AS provider_message_id,
        h.cost AS cost,
        h.currency AS currency,
        h.in_doubt AS in_doubt,
        h.resent AS resent,
        -- A receipt that names the provider's own id is about that hand-over; one that cannot, or a
        -- hand-over whose answer never came, is matched by step and provider.
        arrayFilter(
            x -> h.result != 'refused'
                AND (x.1 = h.provider_message_id OR x.1 = '' OR h.provider_message_id = ''),
            r.said) AS said,
        if(empty(arrayFilter(x -> x.2 = 'delivered', said)), NULL,
            arrayMin(x -> x.3, arrayFilter(x -> x.2 = 'delivered', said))) AS delivered_at,
        if(empty(arrayFilter(x -> x.2 = 'read', said)), NULL,
            arrayMin(x -> x.3, arrayFilter(x -> x.2 = 'read', said))) AS read_at,
        if(empty(arrayFilter(x -> x.2 = 'failed', said)), NULL,
            arrayMin(x -> x.3, arrayFilter(x -> x.2 = 'failed', said))) AS refused_at,
        multiIf(
            arrayExists(x -> x.2 = 'read', said), 'read',
            arrayExists(x -> x.2 = 'delivered', said), 'delivered',
            arrayExists(x -> x.2 = 'failed', said), 'failed',
            '') AS receipt,
        if(receipt = 'failed', arrayFirst(x -> x.2 = 'failed', said).4, '') AS receipt_class,
        if(receipt = 'failed', arrayFirst(x -> x.2 = 'failed', said).5, '') AS receipt_code,
        -- Nothing more is owed for a refusal, nor where a provider's yes was all that was asked for.
        h.result != 'refused'
            AND (receipt != '' OR has(w.silent_steps, h.step) OR w.reason NOT IN ('', 'accepted'))
            AS receipt_due
    FROM
    (
        SELECT
            tenant, message_id, command_id, step, try_no, channel, country, priority, category,
            campaign, accepted_at,
            a.attempt_id AS attempt_id,
            a.provider AS provider,
            fromUnixTimestamp64Milli(a.started_at, 'UTC') AS started_at,
            a.latency_ms AS latency_ms,
            a.requests AS requests,
            a.result AS result,
            a.error_class AS error_class,
            a.code AS code,
            a.provider_message_id AS provider_message_id,
            toDecimal128(round(if(isFinite(a.cost) AND abs(a.cost) < 1e12, a.cost, 0) * 1e6), 6)
                / 1000000 AS cost,
            a.currency AS currency,
            a.in_doubt AS in_doubt,
            a.resent AS resent
        FROM events_unique
        ARRAY JOIN attempts AS a
        WHERE kind IN ('dispatched', 'failed') AND origin = 'dispatch'
        ORDER BY _appended_at, _offset
        LIMIT 1 BY tenant, attempt_id
    ) AS h
    LEFT JOIN
    (
        SELECT
            tenant, message_id, step, provider,
            groupArray((provider_message_id, toString(kind), occurred_at, toString(error_class), toString(code))) AS said
        FROM (SELECT * FROM events_unique ORDER BY occurred_at, event_id)
        WHERE kind IN ('delivered', 'read') OR (kind = 'failed' AND origin = 'receipts')
        GROUP BY tenant, message_id, step, provider
    ) AS r
    ON h.tenant = r.tenant AND h.message_id = r.message_id AND h.step = r.step
        AND h.provider = r.provider
    LEFT JOIN
    (
        SELECT
            tenant, message_id,
            groupUniqArrayIf(step, kind = 'timed_out') AS silent_steps,
            anyIf(toString(reason), kind = 'outcomes') AS reason
        FROM events_unique
        WHERE kind IN ('timed_out', 'outcomes')
        GROUP BY tenant, message_id
    ) AS w
    ON h.tenant = w.tenant AND h.message_id = w.message_id
);

CREATE OR REPLACE VIEW messages AS
SELECT * EXCEPT (accepted_country, tried, silent_steps, failures, cost_of)
FROM
(
    SELECT
        e.tenant AS tenant,
        e.message_id AS message_id,
        any(e.recipient_key) AS recipient_key,
        anyIf(e.priority, e.priority != '') AS priority,
        anyIf(e.category, e.category != '') AS category,
        anyIf(e.campaign, e.campaign != '') AS campaign,
        anyIf(e.labels, notEmpty(e.labels)) AS labels,
        anyIf(e.country, e.kind = 'accepted') AS accepted_country,
        if(accepted_country != '', accepted_country, anyIf(e.country, e.country != '')) AS country,
        min(e.accepted_at) AS accepted_at,
        minIf(e.deadline, e.kind = 'accepted') AS deadline,
        minIfOrNull(e.occurred_at, e.kind = 'dispatched') AS dispatched_at,
        maxIfOrNull(e.occurred_at, e.kind = 'dispatched') AS last_dispatched_at,
        minIfOrNull(e.occurred_at, e.kind = 'timed_out') AS timed_out_at,
        minIfOrNull(e.occurred_at, e.kind = 'delivered') AS delivered_at,
        minIfOrNull(e.occurred_at, e.kind = 'read') AS read_at,
        minIfOrNull(e.occurred_at, e.kind = 'outcomes') AS settled_at,
        maxIfOrNull(e.occurred_at, e.kind = 'late_receipts') AS late_at,
        anyIf(toNullable(e.latency_ms), e.kind = 'outcomes') AS latency_ms,
        multiIf(
            countIf(e.kind = 'outcomes') > 0, anyIf(e.status, e.kind = 'outcomes'),
            countIf(e.kind = 'rejected' AND e.code != 'duplicate') > 0, 'rejected',
            countIf(e.kind IN ('delivered', 'read')) > 0, 'delivered',
            countIf(e.kind = 'dispatched') > 0, 'dispatched',
            'accepted') AS status,
        multiIf(
            countIf(e.kind = 'outcomes') > 0, anyIf(e.reason, e.kind = 'outcomes'),
            status = 'rejected', anyIf(e.reason, e.kind = 'rejected' AND e.code != 'duplicate'),
            '') AS reason,
        if(countIf(e.kind = 'outcomes') > 0, anyIf(e.channel, e.kind = 'outcomes'),
            argMaxIf(e.channel, (e.step, e.try_no), e.kind = 'dispatched')) AS channel,
        if(countIf(e.kind = 'outcomes') > 0, anyIf(e.provider, e.kind = 'outcomes'),
            argMaxIf(e.provider, (e.step, e.try_no), e.kind = 'dispatched')) AS provider,
        if(countIf(e.kind = 'outcomes') > 0, anyIf(e.step, e.kind = 'outcomes'),
            maxIf(e.step, e.kind = 'dispatched')) AS step,
        -- Of every step at which anything was tried: its number and channel, in order.
        arraySort(groupUniqArrayIf((e.step, toString(e.channel)),
            e.kind = 'timed_out' OR (e.kind IN ('dispatched', 'failed') AND e.origin = 'dispatch'))) AS tried,
        arrayMap(s -> s.1, tried) AS steps,
        arrayMap(s -> s.2, tried) AS channels,
        groupUniqArrayIf(e.step, e.kind = 'timed_out') AS silent_steps,
        arraySort(groupArrayIf((e.step, e._appended_at, toString(e.error_class)), e.kind = 'failed')) AS failures,
        -- Why each of them was left; the last one, where the message ended, was not.
        arrayMap(
            s -> multiIf(
                has(silent_steps, s.1), 'timed_out',
                arrayLast(f -> f.1 = s.1, failures).3 != '', arrayLast(f -> f.1 = s.1, failures).3,
                'unknown'),
            arrayPopBack(tried)) AS left_for,
        length(left_for) AS fallbacks,
        if(fallbacks > 0, channels[1], '') AS fallback_from,
        if(fallbacks > 0, left_for[1], '') AS fallback_reason,
        countIf(e.kind = 'dispatched') AS dispatched,
        countIf(e.kind = 'failed') AS failed,
        countIf(e.kind = 'timed_out') AS timed_out,
        countIf(e.kind = 'late_receipts') AS late_receipts,
        countIf(e.kind = 'late_receipts' AND e.reached_before) AS reached_twice,
        countIf(e.kind = 'rejected' AND e.code = 'duplicate') AS duplicates,
        -- What each attempt cost in millionths and how many requests it was, by its id: an event that
        -- tells of an attempt again adds nothing.
        maxMapIf(
            CAST(arrayMap(a -> (a.attempt_id, toInt64(round(if(isFinite(a.cost) AND abs(a.cost) < 1e12, a.cost, 0) * 1e6))), e.attempts), 'Map(String, Int64)'),
            e.kind IN ('dispatched', 'failed') AND e.origin = 'dispatch') AS cost_of,
        length(cost_of) AS attempts,
        toDecimal128(arraySum(mapValues(cost_of)), 6) / 1000000 AS cost,
        sumIf(e.cost, e.kind = 'late_receipts' AND e.reached_before) AS cost_twice,
        anyIf(e.currency, e.currency != '') AS currency,
        max(e.in_doubt) AS in_doubt,
        max(e.resent) AS resent,
        max(e.blind) AS blind,
        anyIf(e.replay_of, e.replay_of != '') AS replay_of,
        anyIf(e.trace_id, e.trace_id != '') AS trace_id
    FROM events_unique AS e
    WHERE e.message_id != '' AND e.kind NOT IN ('unreadable', 'dead_letter')
        AND (e.kind != 'rejected' OR e.origin = 'fallback')
    GROUP BY e.tenant, e.message_id
);
