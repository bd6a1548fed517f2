-- API keys; of the secret only its SHA-256.
create table api_keys (
    id text primary key,
    account_id text not null,
    name text not null,
    secret_sha256 bytea not null,
    created_at timestamptz not null,
    revoked_at timestamptz
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
