-- Sums that grow with the log, so that no drafting reads a month's records: the fold is made again from the log.
DELETE FROM cursor;
DELETE FROM client_head;
DELETE FROM record;
DELETE FROM terms;
DELETE FROM closing;
DELETE FROM invoiced;
DELETE FROM standing;
DELETE FROM invoice_event;
DELETE FROM entry;
DELETE FROM account;

-- The leaves of a line, and records of an hour that the bounds of a period cut. A query names an index' condition word for word.
DROP INDEX record_by_client;
CREATE INDEX record_by_campaign ON record (client, currency, campaign, at_micros) WHERE kind <> 3;
-- Customers: what they spent, who acquired them, and which of both is new.
CREATE INDEX record_by_customer ON record (client, currency, customer, kind, client_seq) WHERE kind <> 1;
CREATE INDEX record_by_seq ON record (client, currency, client_seq) WHERE kind <> 1;
CREATE INDEX record_acquired ON record (client, currency, at_micros) WHERE kind = 2;

-- Spend and acquisitions by campaign and hour (UTC), apart by the closing of their currency that stood before them in the log.
-- An amount of nanos is units * 1,000,000,000 + nanos: sums of one column may be above 2^63.
CREATE TABLE hour (
    client          TEXT   NOT NULL,
    currency        TEXT   NOT NULL,
    closed_seq      BIGINT NOT NULL, -- client_seq of that closing; 0 before the first
    at_hour         BIGINT NOT NULL, -- when it begins, in microseconds
    campaign        TEXT   NOT NULL,
    spend_units     BIGINT NOT NULL,
    spend_nanos     BIGINT NOT NULL,
    predicted_units BIGINT NOT NULL,
    predicted_nanos BIGINT NOT NULL,
    leaves          BIGINT NOT NULL,
    PRIMARY KEY (client, currency, closed_seq, at_hour, campaign)
);

-- What a client's leaves come to so far, as its closings say it; and client_seq of the newest of them, 0 before the first.
CREATE TABLE running (
    client        TEXT   NOT NULL,
    currency      TEXT   NOT NULL,
    closed_seq    BIGINT NOT NULL,
    settled_units BIGINT NOT NULL,
    settled_nanos BIGINT NOT NULL,
    settlements   BIGINT NOT NULL,
    conversions   BIGINT NOT NULL,
    outcome_units BIGINT NOT NULL,
    outcome_nanos BIGINT NOT NULL,
    outcomes      BIGINT NOT NULL,
    PRIMARY KEY (client, currency)
);

-- What a closing adds to a line of its period or an earlier one. Once for each closing, when its drafts are drawn up.
CREATE TABLE line (
    client          TEXT   NOT NULL,
    currency        TEXT   NOT NULL,
    closed_seq      BIGINT NOT NULL, -- client_seq of the closing
    until_micros    BIGINT NOT NULL, -- when the line's part of a period ends
    campaign        TEXT   NOT NULL,
    spend_units     BIGINT NOT NULL,
    spend_nanos     BIGINT NOT NULL,
    predicted_units BIGINT NOT NULL,
    predicted_nanos BIGINT NOT NULL,
    realised_units  BIGINT NOT NULL,
    realised_nanos  BIGINT NOT NULL,
    counted         BIGINT NOT NULL, -- leaves of spend and acquisitions
    valued          BIGINT NOT NULL, -- leaves of what customers spent
    PRIMARY KEY (client, currency, closed_seq, until_micros, campaign)
);
ALTER TABLE closing ADD COLUMN booked BIGINT NOT NULL DEFAULT 0; -- 1: its lines are in
