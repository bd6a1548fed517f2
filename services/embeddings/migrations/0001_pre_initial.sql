-- Vectors by the hash of model, account and text; the text itself is not kept.
create table vectors (
    key bytea primary key,
    vector bytea not null,
    tokens integer not null,
    used_at timestamptz not null default now()
);
create index vectors_used_at on vectors (used_at);
