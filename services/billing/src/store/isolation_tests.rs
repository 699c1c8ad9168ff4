//! What a client's calls may read on PostgreSQL, whatever they ask.

use std::collections::BTreeMap;

use super::*;

/// The tables that have rows of clients, but those that nothing here writes to.
const OF_CLIENTS: [&str; 10] =
    ["client_head", "record", "terms", "closing", "invoice", "invoiced", "standing", "invoice_event", "entry", "running"];

/// How many rows each client has in a table, for whoever asks.
async fn rows(store: &Store, table: &str) -> BTreeMap<String, i64> {
    let sql: &'static str = format!("SELECT client, COUNT(*) AS rows FROM {table} GROUP BY client").leak();
    let rows = super::sql(sql).rows(&store.pool).await.unwrap();
    rows.iter().map(|row| (row.get("client").unwrap(), row.get("rows").unwrap())).collect()
}

/// Two clients, each with a life of an invoice and a draft.
async fn two_clients(store: &Store) {
    let mut frontier = Frontier::new();
    for client in ["acme", "beta"] {
        let mut bodies = a_life();
        bodies.splice(0..0, [terms(1), settled(7)]);
        let believed = believed_of(client, 0, frontier, bodies);
        fold(store, &believed).await.unwrap();
        frontier = believed.frontier;
        let id = format!("draft-{client}");
        store.keep_draft(&InvoiceRow { client: client.to_owned(), ..draft(&id) }).await.unwrap();
        store.approve(&id, &Approval { actor: "ada".into(), at: UnixMicros(1) }).await.unwrap();
    }
}

#[tokio::test]
async fn a_clients_view_has_no_row_of_anothers_whatever_is_asked() {
    let place = Place::postgres().await;
    let store = open(&place).await;
    two_clients(&store).await;
    let (acme, nobody) = (store.seen_by("acme"), store.seen_by("nobody"));
    for table in OF_CLIENTS {
        let (all, own) = (rows(&store, table).await, rows(&acme, table).await);
        assert!(all.len() == 2 || table == "closing" || table == "running", "{table}: {all:?}");
        assert_eq!(own, all.into_iter().filter(|(client, _)| client == "acme").collect(), "{table}");
        assert!(rows(&nobody, table).await.is_empty(), "{table}");
    }
    // What the statements do is the same, but for what is not the client's.
    assert_eq!(acme.invoice("draft-acme").await.unwrap(), store.invoice("draft-acme").await.unwrap());
    assert_eq!(acme.invoice("draft-beta").await.unwrap(), None);
    let page = Page { limit: 9, ..Page::default() };
    assert_eq!(acme.list(&page).await.unwrap().iter().map(|row| &*row.client).collect::<Vec<_>>(), ["acme"]);
    assert!(acme.course("draft-acme").await.unwrap().approval.is_some());
    assert!(acme.course("draft-beta").await.unwrap().approval.is_none());
    assert_eq!(acme.signed(LOG).await.unwrap(), store.signed(LOG).await.unwrap());
    // It only reads, and what belongs to the operator alone it does not see.
    assert!(super::sql("DELETE FROM invoice").execute(&acme.pool).await.is_err());
    assert!(super::sql("SELECT last FROM number_given").rows(&acme.pool).await.is_err());
    assert_eq!(rows(&store, "invoice").await.len(), 2);
}

#[tokio::test]
async fn every_table_of_clients_is_isolated_also_after_a_second_start() {
    let place = Place::postgres().await;
    drop(open(&place).await);
    let store = open(&place).await;
    let open_tables = "SELECT relname::TEXT COLLATE \"C\" AS name FROM pg_class WHERE relnamespace = 'kiki_billing'::regnamespace
        AND relkind = 'r' AND NOT relrowsecurity ORDER BY name";
    let names = super::sql(open_tables).rows(&store.pool).await.unwrap();
    let names: Vec<String> = names.iter().map(|row| row.get("name").unwrap()).collect();
    assert_eq!(names, ["_sqlx_migrations", "account", "cursor", "number_given"], "none of them says whose a row is");
}
