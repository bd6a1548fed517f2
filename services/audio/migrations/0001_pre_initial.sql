-- What was transcribed and spoken for whom; neither recordings nor texts are kept.
create table transcriptions (
    request_id text primary key,
    account_id text not null,
    model text not null,
    milliseconds bigint not null,
    created_at timestamptz not null default now()
);
create index transcriptions_account on transcriptions (account_id, created_at);

create table speeches (
    request_id text primary key,
    account_id text not null,
    model text not null,
    voice text not null,
    format text not null,
    characters bigint not null,
    created_at timestamptz not null default now()
);
create index speeches_account on speeches (account_id, created_at);
