-- Notes beside invoices, several sellers' numbers: the fold is made again from the log. Invoices and numbers stay; drafts are
-- drawn up again in the new format.
DELETE FROM invoice WHERE number IS NULL;
DROP TABLE cursor;
DROP TABLE client_head;
DROP TABLE invoiced;
DELETE FROM record;
DELETE FROM terms;
DELETE FROM closing;

CREATE TABLE cursor (
    log_id      TEXT   NOT NULL PRIMARY KEY,
    next_index  BIGINT NOT NULL,
    frontier    TEXT   NOT NULL,
    signed_size BIGINT NOT NULL,
    signed_root BYTEA  NOT NULL
);
CREATE TABLE client_head (
    client     TEXT   NOT NULL PRIMARY KEY,
    client_seq BIGINT NOT NULL,
    bytes      BIGINT NOT NULL
);
CREATE TABLE invoiced (
    leaf              BIGINT NOT NULL PRIMARY KEY,
    number            TEXT   NOT NULL,
    client            TEXT   NOT NULL,
    period_closed_seq BIGINT NOT NULL,
    corrects_seq      BIGINT NOT NULL
);
CREATE INDEX invoiced_by_closing ON invoiced (client, period_closed_seq, corrects_seq);

-- client_seq of the closing of the period that a note corrects; 0 of an invoice.
ALTER TABLE invoice ADD COLUMN corrects_seq BIGINT NOT NULL DEFAULT 0;
CREATE INDEX invoice_by_closing ON invoice (client, period_closed_seq, corrects_seq);

-- The last number given behind a stem, such as 'K2026-' or 'K2026-C': given in the transaction that uses it, so there are no gaps.
CREATE TABLE number_given (
    stem TEXT   NOT NULL PRIMARY KEY,
    last BIGINT NOT NULL
);
INSERT INTO number_given (stem, last) SELECT 'K' || year || '-', last FROM invoice_number;
DROP TABLE invoice_number;
