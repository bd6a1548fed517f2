-- Accounts, as far as they have been heard of: a balance or a charge may arrive before the account's name.
create table accounts (
    id text primary key,
    name text not null default '',
    opened_at timestamptz,
    available_nano_credits bigint not null default 0,
    leased_nano_credits bigint not null default 0,
    balance_version bigint not null default -1,
    -- Below this balance the account was last announced as low; 0 where it never was.
    low_below_nano_credits bigint not null default 0,
    charged_nano_credits bigint not null default 0,
    requests bigint not null default 0
);
create index accounts_low on accounts ((available_nano_credits + leased_nano_credits), id)
    where available_nano_credits + leased_nano_credits < low_below_nano_credits;

-- Keys as they were last told of; what they may do is one document, because it is only shown.
create table api_keys (
    account_id text not null,
    id text not null,
    terms jsonb not null,
    created_at timestamptz not null,
    revoked_at timestamptz,
    expires_at timestamptz,
    previous_secret_expires_at timestamptz,
    told_at timestamptz not null,
    primary key (account_id, id)
);

-- Recent charges, one for each request, in the order in which they arrived.
create table charges (
    number bigint generated always as identity primary key,
    request_id text not null unique,
    account_id text not null,
    key_id text not null,
    model text not null,
    deployment_id text not null,
    operation text not null,
    quantities jsonb not null,
    tokens bigint not null generated always as (
        coalesce((quantities ->> 'input_tokens')::bigint, 0)
        + coalesce((quantities ->> 'cached_input_tokens')::bigint, 0)
        + coalesce((quantities ->> 'output_tokens')::bigint, 0)
    ) stored,
    nano_credits bigint not null,
    estimated boolean not null,
    finished_at timestamptz not null
);
create index charges_account_id on charges (account_id, number);
create index charges_finished_at on charges (finished_at);

-- What was used in each hour; kept when the charges themselves are dropped.
create table usage_hours (
    hour timestamptz not null,
    account_id text not null,
    model text not null,
    requests bigint not null,
    tokens bigint not null,
    nano_credits bigint not null,
    primary key (hour, account_id, model)
);
create index usage_hours_account_id on usage_hours (account_id, hour);

create table quantity_hours (
    hour timestamptz not null,
    account_id text not null,
    model text not null,
    unit text not null,
    quantity bigint not null,
    primary key (account_id, hour, model, unit)
);

create table models (
    id text primary key,
    owned_by text not null,
    capabilities text[] not null,
    context_length bigint not null,
    announced_at timestamptz not null
);

create table deployments (
    id text primary key,
    model_id text not null,
    service text not null,
    address text not null,
    priority integer not null,
    weight integer not null
);
create index deployments_model_id on deployments (model_id);

-- Apart from the deployments, because it may be heard of before them.
create table deployment_health (
    deployment_id text primary key,
    health text not null,
    reason text not null,
    since timestamptz not null,
    observed_at timestamptz not null
);

create table prices (
    id text primary key,
    model_id text not null,
    nano_credits jsonb not null,
    effective_from timestamptz not null
);
create index prices_model_id on prices (model_id, effective_from);

-- Recently finished tasks, in the order in which they arrived.
create table tasks (
    number bigint generated always as identity primary key,
    id text not null unique,
    account_id text not null,
    type text not null,
    state text not null,
    error text not null,
    finished_at timestamptz not null
);
create index tasks_finished_at on tasks (finished_at);

-- How each service answered when any replica last asked it.
create table service_health (
    service text primary key,
    status text not null,
    detail text not null,
    since timestamptz not null,
    checked_at timestamptz not null
);

-- Sessions by a keyed hash of the token that the browser holds.
create table sessions (
    key bytea primary key,
    actor text not null,
    expires_at timestamptz not null
);
create index sessions_expires_at on sessions (expires_at);

create table audit_log (
    number bigint generated always as identity primary key,
    id text not null unique,
    action text not null,
    actor text not null,
    address text not null,
    taken_at timestamptz not null
);
create index audit_log_address on audit_log (address, taken_at);
create index audit_log_taken_at on audit_log (taken_at);
