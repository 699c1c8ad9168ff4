-- A client's spend in the log's order: its books by sheet.
CREATE INDEX record_by_spend ON record (client, currency, client_seq) WHERE kind = 1;
