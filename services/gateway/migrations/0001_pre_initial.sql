-- API keys; of the secrets only their SHA-256. What a key does not have, and what does not bound it, is null.
create table api_keys (
    id text primary key,
    account_id text not null,
    name text not null,
    secret_sha256 bytea not null,
    created_at timestamptz not null,
    revoked_at timestamptz,
    expires_at timestamptz,
    labels jsonb,
    endpoints text[],
    models text[],
    limits jsonb,
    budget_nano_credits bigint,
    budget_period text,
    previous_sha256 bytea,
    previous_until timestamptz,
    version bigint not null,
    check ((budget_nano_credits is null) = (budget_period is null)),
    check ((previous_sha256 is null) = (previous_until is null))
);
create index api_keys_account on api_keys (account_id, created_at, id);

-- What other services have told of, kept here because a decision asks nobody.
create table accounts (
    id text primary key,
    available_nano_credits bigint not null,
    version bigint not null
);

create table models (
    id text primary key,
    capabilities text[] not null,
    context_length bigint not null,
    deployments jsonb not null,
    fallbacks text[] not null,
    cache_seconds bigint not null,
    content_filter boolean not null,
    registered_at timestamptz not null
);

create table prices (
    id text primary key,
    model_id text not null,
    nano_credits jsonb not null,
    effective_from timestamptz not null
);
create index prices_model on prices (model_id, effective_from);

create table deployment_health (
    deployment_id text primary key,
    usable boolean not null,
    observed_at timestamptz not null
);

-- What became of requests: the replica that holds credits for one looks it up here.
create table settlements (
    request_id text primary key,
    lease_id text not null,
    leased_nano_credits bigint not null,
    tokens bigint not null,
    settled_at timestamptz not null default now()
);
create index settlements_age on settlements (settled_at);

-- What was answered under an idempotency key, without the secret, which can be derived anew.
create table key_requests (
    account_id text not null,
    idempotency_key text not null,
    fingerprint bytea not null,
    api_key jsonb not null,
    created_at timestamptz not null,
    primary key (account_id, idempotency_key)
);
create index key_requests_created on key_requests (created_at);

-- Limits of an account, for all its models together (no name) or for one.
create table account_limits (
    account_id text not null,
    model text not null,
    requests_per_minute bigint check (requests_per_minute > 0),
    tokens_per_minute bigint check (tokens_per_minute > 0),
    concurrent_requests bigint check (concurrent_requests > 0),
    primary key (account_id, model)
);

-- What is drawn from each limit: its bucket as `domain/gcra.py` keeps it, in nanoseconds of this database's
-- clock. Whoever changes a limit's bucket or slots has locked its row here.
create table rate_limits (
    subject text primary key,
    tat bigint not null default 0,
    lows jsonb not null default '[]'
) with (fillfactor = 50); -- room to update rows in place

-- Slots of a limit on concurrent requests that a replica has until they expire.
create table concurrency_slots (
    subject text not null,
    holder text not null,
    slots bigint not null check (slots > 0),
    expires_at timestamptz not null,
    primary key (subject, holder)
);
