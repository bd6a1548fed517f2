-- Events that wait to be published; the relay deletes what JetStream has acknowledged.
create table outbox (
    id bigint generated always as identity primary key,
    event_id uuid not null,
    subject text not null,
    payload bytea not null,
    headers jsonb not null,
    created_at timestamptz not null default now()
);

-- Events of the types that the service keeps, as they were emitted, so that they can be told again.
create table kept_events (
    event_id uuid primary key,
    subject text not null,
    payload bytea not null,
    emitted_at timestamptz not null
);
create index kept_events_emitted_at on kept_events (emitted_at);

-- Events that were handled, recorded in the transaction of their effect.
create table processed_events (
    event_id text primary key,
    processed_at timestamptz not null default now()
);
create index processed_events_processed_at on processed_events (processed_at);

-- Events that could not be handled, set aside for people to look at.
create table dead_letters (
    event_id text primary key,
    subject text not null,
    payload bytea not null,
    error text not null,
    attempts integer not null,
    created_at timestamptz not null default now()
);
