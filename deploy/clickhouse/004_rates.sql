-- Rates by minute, hour and day of the time at which messages were accepted.
--
-- Every figure is a set of ids (`uniqExactMerge` counts them), never a sum of rows, so a row that is
-- fed twice changes nothing: the sink feeds again what may be missing, and one statement feeds
-- everything again (docs/sql.md). Requests are named by their place in Kafka, because a caller's
-- repeat has the id of the message that it repeats; all else by message.
--
-- Hours and days are views: an exact set of a day is as large as those of its minutes together, so
-- keeping it beside them would cost room and time at every INSERT and spare little on reading.
-- The table is not partitioned: an INSERT of the sink makes one part, a part of a partitioned table
-- holds one month, and messages accepted in two months may end in one INSERT.
-- `rates_feed` keeps nothing. It is the one door into the table.

CREATE TABLE IF NOT EXISTS rates_feed
(
    tenant           LowCardinality(String),
    message_id       String,
    kind             LowCardinality(String),
    origin           LowCardinality(String),
    channel          LowCardinality(String),
    provider         LowCardinality(String),
    country          LowCardinality(String),
    priority         LowCardinality(String),
    status           LowCardinality(String),
    accepted_at      Nullable(DateTime64(3, 'UTC')),
    latency_ms       Int64,
    source_topic     LowCardinality(String),
    source_partition Int64,
    source_offset    Int64
)
ENGINE = Null;

CREATE TABLE IF NOT EXISTS rates_minute
(
    at          DateTime('UTC') COMMENT 'the minute in which the message was accepted',
    tenant      LowCardinality(String),
    channel     LowCardinality(String),
    provider    LowCardinality(String),
    country     LowCardinality(String),
    priority    LowCardinality(String),
    accepted    AggregateFunction(uniqExact, String) COMMENT 'requests that were understood; on rows without a channel',
    turned_away AggregateFunction(uniqExact, String) COMMENT 'of these: repeats, and people who had opted out; on rows without a channel',
    dispatched  AggregateFunction(uniqExact, String) COMMENT 'messages that a provider of the channel took, or may have taken',
    timed_out   AggregateFunction(uniqExact, String) COMMENT 'messages whose window on the channel ended in silence',
    delivered   AggregateFunction(uniqExact, String) COMMENT 'messages with the outcome delivered, by the channel that did it',
    failed      AggregateFunction(uniqExact, String) COMMENT 'messages with the outcome failed, by their last channel',
    latency     AggregateFunction(groupUniqArray, Tuple(UInt64, Int64)) COMMENT 'of those delivered: message and milliseconds since it was accepted'
)
ENGINE = AggregatingMergeTree
ORDER BY (tenant, at, channel, provider, country, priority)
TTL at + INTERVAL 400 DAY
SETTINGS non_replicated_deduplication_window = 10000;

CREATE OR REPLACE VIEW rates_hour AS
SELECT
    toStartOfHour(m.at) AS at,
    tenant, channel, provider, country, priority,
    uniqExactMergeState(m.accepted) AS accepted,
    uniqExactMergeState(m.turned_away) AS turned_away,
    uniqExactMergeState(m.dispatched) AS dispatched,
    uniqExactMergeState(m.timed_out) AS timed_out,
    uniqExactMergeState(m.delivered) AS delivered,
    uniqExactMergeState(m.failed) AS failed,
    groupUniqArrayMergeState(m.latency) AS latency
FROM rates_minute AS m
GROUP BY at, tenant, channel, provider, country, priority;

CREATE OR REPLACE VIEW rates_day AS
SELECT
    toDateTime(toStartOfDay(m.at), 'UTC') AS at,
    tenant, channel, provider, country, priority,
    uniqExactMergeState(m.accepted) AS accepted,
    uniqExactMergeState(m.turned_away) AS turned_away,
    uniqExactMergeState(m.dispatched) AS dispatched,
    uniqExactMergeState(m.timed_out) AS timed_out,
    uniqExactMergeState(m.delivered) AS delivered,
    uniqExactMergeState(m.failed) AS failed,
    groupUniqArrayMergeState(m.latency) AS latency
FROM rates_minute AS m
GROUP BY at, tenant, channel, provider, country, priority;

CREATE MATERIALIZED VIEW IF NOT EXISTS rates_minute_mv TO rates_minute AS
SELECT
    toStartOfMinute(toDateTime(assumeNotNull(accepted_at), 'UTC')) AS at,
    tenant, channel, provider, country, priority,
    uniqExactStateIf(concat(source_topic, ':', toString(source_partition), ':', toString(source_offset)), kind = 'accepted') AS accepted,
    uniqExactStateIf(concat(source_topic, ':', toString(source_partition), ':', toString(source_offset)), kind = 'rejected') AS turned_away,
    uniqExactStateIf(message_id, kind = 'dispatched') AS dispatched,
    uniqExactStateIf(message_id, kind = 'timed_out') AS timed_out,
    uniqExactStateIf(message_id, kind = 'outcomes' AND status = 'delivered') AS delivered,
    uniqExactStateIf(message_id, kind = 'outcomes' AND status = 'failed') AS failed,
    groupUniqArrayStateIf((cityHash64(message_id), latency_ms), kind = 'outcomes' AND status = 'delivered') AS latency
FROM rates_feed
WHERE accepted_at IS NOT NULL
    AND (kind IN ('accepted', 'dispatched', 'timed_out', 'outcomes')
        OR (kind = 'rejected' AND origin = 'fallback'))
GROUP BY at, tenant, channel, provider, country, priority;

CREATE MATERIALIZED VIEW IF NOT EXISTS rates_feed_mv TO rates_feed AS
SELECT
    tenant, message_id, kind, origin, channel, provider, country, priority, status,
    accepted_at, latency_ms, source_topic, source_partition, source_offset
FROM events;

-- What was stored before.
INSERT INTO rates_feed
SELECT
    tenant, message_id, kind, origin, channel, provider, country, priority, status,
    accepted_at, latency_ms, source_topic, source_partition, source_offset
FROM events;
