-- The fold keeps more than before: it is made again from the log. Drafts, invoices and numbers stay.
DELETE FROM cursor;
DELETE FROM client_head;
DELETE FROM record;
DELETE FROM terms;
DELETE FROM closing;
DELETE FROM invoiced;

-- Where each invoice stands that the log holds, whoever issued it.
CREATE TABLE standing (
    client      TEXT   NOT NULL,
    number      TEXT   NOT NULL,
    leaf        BIGINT NOT NULL,
    currency    TEXT   NOT NULL,
    total_minor BIGINT NOT NULL, -- with tax
    tax_minor   BIGINT NOT NULL,
    paid_minor  BIGINT NOT NULL,
    stage       BIGINT NOT NULL, -- 1 finalized, 2 sent, 3 partly paid, 4 paid, 5 void, 6 written off
    disputed    BIGINT NOT NULL, -- 0 or 1
    PRIMARY KEY (client, number)
);

-- What happened to invoices, also what came too late to count.
CREATE TABLE invoice_event (
    leaf      BIGINT NOT NULL PRIMARY KEY,
    client    TEXT   NOT NULL,
    number    TEXT   NOT NULL,
    key       TEXT   NOT NULL,
    at_micros BIGINT NOT NULL,
    body      BYTEA  NOT NULL,
    refused   TEXT   NOT NULL, -- why it changed nothing; empty where it counts
    UNIQUE (client, key)
);
CREATE INDEX invoice_event_by_number ON invoice_event (client, number, leaf);

-- The double-entry ledger: a leaf's entries sum to 0, and so do a currency's accounts. Debits are above 0.
CREATE TABLE entry (
    leaf         BIGINT NOT NULL,
    account      TEXT   NOT NULL,
    client       TEXT   NOT NULL,
    currency     TEXT   NOT NULL,
    amount_minor BIGINT NOT NULL,
    PRIMARY KEY (leaf, account)
);
CREATE TABLE account (
    currency      TEXT   NOT NULL,
    account       TEXT   NOT NULL,
    balance_minor BIGINT NOT NULL,
    PRIMARY KEY (currency, account)
);

-- Who approved a draft: not in the log, as drafts are not.
CREATE TABLE approval (
    draft_id  TEXT   NOT NULL PRIMARY KEY,
    actor     TEXT   NOT NULL,
    at_micros BIGINT NOT NULL
);
