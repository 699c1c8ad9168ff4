-- Credit notes come off the invoice that they correct: the fold is made again from the log.
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

-- What credit notes took off. total_minor is below 0 of a credit note itself.
ALTER TABLE standing ADD COLUMN credited_minor BIGINT NOT NULL DEFAULT 0;
-- As in invoiced.
ALTER TABLE standing ADD COLUMN period_closed_seq BIGINT NOT NULL DEFAULT 0;
ALTER TABLE standing ADD COLUMN corrects_seq BIGINT NOT NULL DEFAULT 0;
CREATE INDEX standing_by_closing ON standing (client, period_closed_seq, corrects_seq);
