-- Billing's ledger: a fold of the log, the cursor it stands at, and the invoices.
-- BIGINT, TEXT and BYTEA only, so that the same statements serve another engine.

-- How far the log was believed: the tree's right edge at a signed checkpoint, in JSON.
CREATE TABLE cursor (
    log_id     TEXT   NOT NULL PRIMARY KEY,
    next_index BIGINT NOT NULL,
    frontier   TEXT   NOT NULL,
    root       BYTEA  NOT NULL
);

-- The last sequence of each client.
CREATE TABLE client_head (
    client     TEXT   NOT NULL PRIMARY KEY,
    client_seq BIGINT NOT NULL
);

-- One row a leaf that money is summed from.
CREATE TABLE record (
    leaf       BIGINT NOT NULL PRIMARY KEY,
    client     TEXT   NOT NULL,
    client_seq BIGINT NOT NULL,
    currency   TEXT   NOT NULL,
    at_micros  BIGINT NOT NULL,
    kind       BIGINT NOT NULL, -- 1 spend, 2 acquired, 3 value
    campaign   TEXT   NOT NULL, -- empty for 3
    customer   BYTEA  NOT NULL, -- empty for 1
    amount     BIGINT NOT NULL, -- 1: nanos; 2 and 3: micros
    count      BIGINT NOT NULL  -- 1: impressions
);
CREATE INDEX record_by_client ON record (client, currency, client_seq);

-- Terms and closings keep their leaf: header and body.
CREATE TABLE terms (
    client   TEXT   NOT NULL,
    currency TEXT   NOT NULL,
    version  BIGINT NOT NULL,
    leaf     BIGINT NOT NULL,
    body     BYTEA  NOT NULL,
    PRIMARY KEY (client, currency, version)
);
CREATE TABLE closing (
    client     TEXT   NOT NULL,
    currency   TEXT   NOT NULL,
    month      TEXT   NOT NULL,
    leaf       BIGINT NOT NULL,
    client_seq BIGINT NOT NULL,
    body       BYTEA  NOT NULL,
    PRIMARY KEY (client, currency, month)
);

-- A draft gets its number, final bytes and instant of issue at once; then its leaf, when the log took it.
CREATE TABLE invoice (
    draft_id          TEXT   NOT NULL PRIMARY KEY,
    number            TEXT   UNIQUE,
    client            TEXT   NOT NULL,
    currency          TEXT   NOT NULL,
    month             TEXT   NOT NULL,
    document          BYTEA  NOT NULL,
    period_closed_seq BIGINT NOT NULL,
    issued_micros     BIGINT,
    leaf              BIGINT
);

-- The last number given in a year: given in the transaction that uses it, so there are no gaps.
CREATE TABLE invoice_number (
    year BIGINT NOT NULL PRIMARY KEY,
    last BIGINT NOT NULL
);
