-- A transactional outbox for PostgreSQL: write the row in the transaction that makes the message
-- true (the order, the login); outbox-to-intake.json brings it to the pipeline. docs/connect.md says
-- the rest.

CREATE TABLE delivery_outbox (
    -- The request's idempotency key: a row that Debezium reads twice is one message.
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    -- intake, or intake.bulk for campaigns.
    lane text NOT NULL DEFAULT 'intake' CHECK (lane IN ('intake', 'intake.bulk')),
    -- Whom it is about; rows of one person stay in their order.
    recipient text NOT NULL,
    -- The request: {"to": {...}, "content": {...}, ...}, as on the intake topic.
    request jsonb NOT NULL CHECK (request ? 'to' AND request ? 'content'),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Debezium reads the write-ahead log, so rows need not stay; a few days help when somebody asks.
CREATE INDEX delivery_outbox_created_at ON delivery_outbox (created_at);

-- Who reads it. Set a password, and let it replicate.
CREATE ROLE delivery_outbox_reader WITH REPLICATION LOGIN;
GRANT SELECT ON delivery_outbox TO delivery_outbox_reader;
CREATE PUBLICATION delivery_outbox FOR TABLE delivery_outbox WITH (publish = 'insert');

-- What an application does:
--   BEGIN;
--   UPDATE orders SET status = 'shipped' WHERE id = 42;
--   INSERT INTO delivery_outbox (recipient, request) VALUES ('customer-7', jsonb_build_object(
--       'to', jsonb_build_object('phone', '+4915112345678'),
--       'content', jsonb_build_object('text', 'Your parcel is on its way')));
--   COMMIT;
