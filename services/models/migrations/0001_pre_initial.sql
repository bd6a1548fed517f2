-- The catalogue; what has been taken out of it stays, with the time when it was.
create table models (
    id text primary key,
    owned_by text not null,
    capabilities text[] not null,
    context_length bigint not null,
    fallbacks text[] not null,
    cache_seconds bigint not null,
    content_filter boolean not null,
    created_at timestamptz not null default now(),
    retired_at timestamptz
);

-- Where models are served, and how each of these places was when that last changed. One that its callers found to
-- fail is held down: until then no probe makes it anything but unhealthy.
create table deployments (
    id text primary key,
    model_id text not null references models,
    service text not null,
    address text not null,
    health_url text not null,
    priority integer not null,
    weight integer not null,
    upstream_format text not null,
    upstream_url text not null,
    upstream_model text not null,
    upstream_secret text not null,
    upstream_max_requests integer not null,
    health text not null default 'unknown' check (health in ('unknown', 'healthy', 'unhealthy')),
    reason text not null default '',
    observed_at timestamptz,
    held_until timestamptz,
    retired_at timestamptz
);
create index deployments_model_id on deployments (model_id);

-- Prices never change; the latest one of a model is its current one.
create table prices (
    id text primary key,
    model_id text not null references models,
    nano_credits jsonb not null,
    effective_from timestamptz not null
);
create unique index prices_model_id_effective_from on prices (model_id, effective_from desc);

-- The history of health.
create table health_changes (
    id bigint generated always as identity primary key,
    deployment_id text not null references deployments,
    health text not null,
    reason text not null,
    observed_at timestamptz not null
);
create index health_changes_deployment_id on health_changes (deployment_id, observed_at);
create index health_changes_observed_at on health_changes (observed_at);
