-- What was analysed for whom; neither the image nor its text is kept.
create table analyses (
    id text primary key,
    request_id text not null unique,
    account_id text not null,
    model text not null,
    width integer not null,
    height integer not null,
    lines integer not null,
    created_at timestamptz not null
);
create index analyses_account on analyses (account_id, created_at);
