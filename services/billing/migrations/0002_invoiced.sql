-- The fold keeps more than before: it is made again from the log. Drafts, invoices and numbers stay.
DROP TABLE cursor;
DROP TABLE client_head;
DELETE FROM record;
DELETE FROM terms;
DELETE FROM closing;

-- How far the log was believed, and the signed checkpoint that it was believed by: that may be longer.
CREATE TABLE cursor (
    log_id      TEXT   NOT NULL PRIMARY KEY,
    next_index  BIGINT NOT NULL,
    frontier    TEXT   NOT NULL,
    signed_size BIGINT NOT NULL,
    signed_root BYTEA  NOT NULL
);

-- The last sequence of each client, which is how many leaves it has, and their bytes.
CREATE TABLE client_head (
    client     TEXT   NOT NULL PRIMARY KEY,
    client_seq BIGINT NOT NULL,
    bytes      BIGINT NOT NULL
);

-- Invoices that the log holds and this ledger did not issue: it was lost, or is a copy of an older day.
CREATE TABLE invoiced (
    leaf              BIGINT NOT NULL PRIMARY KEY,
    number            TEXT   NOT NULL,
    client            TEXT   NOT NULL,
    period_closed_seq BIGINT NOT NULL
);
CREATE INDEX invoiced_by_closing ON invoiced (client, period_closed_seq);
