-- Notes beside invoices, several sellers' numbers: the fold is made again from the log. Invoices and numbers stay; drafts are
-- drawn up again in the new format.
DELETE FROM invoice WHERE number IS NULL;
DELETE FROM approval;
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

ALTER TABLE invoiced ADD COLUMN corrects_seq BIGINT NOT NULL DEFAULT 0;

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
