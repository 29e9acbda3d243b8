-- One row per record of every event topic, written by the sink and by nobody else.
--
-- The position of the sink lives here: `_topic_id`, `_partition` and `_offset` say how far each
-- partition has been read, so a row and the progress that it stands for are one write.
-- The order key is made of identity only. A record that was written twice under its own id, or a
-- batch that a stalled writer inserts late, therefore collapses (read through `events_unique`).
-- Columns in EPHEMERAL are how three values travel; they are not stored.

CREATE TABLE IF NOT EXISTS events
(
    event_id            String CODEC(ZSTD(1)),
    kind                LowCardinality(String) COMMENT 'the topic with _ for -; unreadable when the record was',
    tenant              LowCardinality(String),
    message_id          String CODEC(ZSTD(1)),
    recipient_key       String CODEC(ZSTD(1)),
    command_id          String CODEC(ZSTD(1)),
    step                Int64 CODEC(T64, LZ4),
    try_no              Int64 CODEC(T64, LZ4),
    occurred_at         DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    accepted_at         Nullable(DateTime64(3, 'UTC')) CODEC(Delta, ZSTD(1)),
    deadline            Nullable(DateTime64(3, 'UTC')) CODEC(Delta, ZSTD(1)),
    retry_at            Nullable(DateTime64(3, 'UTC')) CODEC(Delta, ZSTD(1)),
    channel             LowCardinality(String),
    provider            LowCardinality(String),
    country             LowCardinality(String),
    priority            LowCardinality(String),
    category            LowCardinality(String),
    campaign            String CODEC(ZSTD(1)),
    labels              Map(LowCardinality(String), String) DEFAULT JSONExtract(labels_json, 'Map(LowCardinality(String), String)'),
    labels_json         String EPHEMERAL,
    status              LowCardinality(String) COMMENT 'of outcomes: delivered or failed',
    result              LowCardinality(String) COMMENT 'accepted, refused or unknown',
    error_class         LowCardinality(String),
    code                LowCardinality(String),
    reason              LowCardinality(String),
    field               LowCardinality(String),
    provider_message_id String CODEC(ZSTD(1)),
    provider_event_id   String CODEC(ZSTD(1)),
    latency_ms          Int64 CODEC(T64, LZ4),
    cost                Decimal(18, 6) DEFAULT toDecimal128(cost_micros, 6) / 1000000,
    cost_micros         Int64 EPHEMERAL,
    currency            LowCardinality(String),
    attempts            Array(Tuple(
                            attempt_id String,
                            provider LowCardinality(String),
                            requests Int64,
                            started_at Int64,
                            latency_ms Int64,
                            result LowCardinality(String),
                            error_class LowCardinality(String),
                            code LowCardinality(String),
                            provider_message_id String,
                            cost Float64,
                            currency LowCardinality(String),
                            in_doubt Bool,
                            resent Bool))
                        DEFAULT JSONExtract(attempts_json, 'Array(Tuple(attempt_id String, provider LowCardinality(String), requests Int64, started_at Int64, latency_ms Int64, result LowCardinality(String), error_class LowCardinality(String), code LowCardinality(String), provider_message_id String, cost Float64, currency LowCardinality(String), in_doubt Bool, resent Bool))')
                        CODEC(ZSTD(1)),
    attempts_json       String EPHEMERAL,
    attempts_made       Int64 CODEC(T64, LZ4) COMMENT 'of outcomes: over all steps',
    steps_tried         Int64 CODEC(T64, LZ4),
    origin              LowCardinality(String) COMMENT 'the stage that wrote the record',
    on_doubt            LowCardinality(String),
    in_doubt            Bool,
    resent              Bool,
    blind               Bool,
    reached_before      Bool,
    replay_of           String CODEC(ZSTD(1)),
    idempotency_hash    String CODEC(ZSTD(1)),
    source_topic        LowCardinality(String),
    source_partition    Int64 CODEC(T64, LZ4),
    source_offset       Int64 CODEC(ZSTD(1)),
    trace_id            String CODEC(ZSTD(1)),
    record_version      Int64 CODEC(T64, LZ4),
    _topic              LowCardinality(String),
    _topic_id           LowCardinality(String) COMMENT 'a topic that is made anew has another one',
    _partition          Int32 CODEC(T64, LZ4),
    _offset             Int64 CODEC(DoubleDelta, ZSTD(1)),
    _appended_at        DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'by the clock of the broker',
    _inserted_at        DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    INDEX by_provider_message provider_message_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX by_recipient recipient_key TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(_appended_at)
ORDER BY (tenant, kind, message_id, event_id)
TTL toDateTime(_appended_at) + INTERVAL 400 DAY
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;
