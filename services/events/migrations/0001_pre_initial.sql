-- The public events of all accounts. Those of one account become visible in the order of `sequence`.
create table events (
    sequence bigint generated always as identity primary key,
    id text not null,
    account_id text not null,
    type text not null,
    created_at timestamptz not null,
    data jsonb not null,
    unique (account_id, id)
);
create index events_account_id_sequence on events (account_id, sequence);
create index events_account_id_type_sequence on events (account_id, type, sequence);
create index events_created_at on events (created_at);
