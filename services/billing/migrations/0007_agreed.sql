-- Credits by agreement.

-- What was billed before tax and no credit note gave back.
ALTER TABLE standing ADD COLUMN creditable_minor BIGINT NOT NULL DEFAULT 0;
UPDATE standing SET creditable_minor = total_minor - tax_minor - COALESCE(
    (SELECT CAST(SUM(-note.total_minor - note.tax_minor) AS BIGINT) FROM standing AS note
     WHERE note.client = standing.client AND note.corrects_seq = standing.period_closed_seq AND note.total_minor < 0
     AND standing.corrects_seq = 0), 0)
    WHERE total_minor > 0;
UPDATE standing SET creditable_minor = 0 WHERE creditable_minor < 0;

ALTER TABLE invoice_event ADD COLUMN client_seq BIGINT NOT NULL DEFAULT 0;
-- Of a credit that counts, what creditable_minor of its invoice was before it; 0 of all else.
ALTER TABLE invoice_event ADD COLUMN creditable_minor BIGINT NOT NULL DEFAULT 0;
CREATE INDEX invoice_event_by_seq ON invoice_event (client, client_seq);
CREATE INDEX invoice_event_by_credit ON invoice_event (leaf) WHERE creditable_minor > 0;
