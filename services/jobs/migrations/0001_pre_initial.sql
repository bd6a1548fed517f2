-- Jobs with their state, what was asked for and what came of it.
create table jobs (
    id text primary key,
    account_id text not null,
    key_id text not null,
    -- The id under which the work is charged.
    request_id text not null,
    task_type text not null,
    priority text not null check (priority in ('high', 'standard', 'low')),
    -- JSON as it was sent: jsonb would refuse some valid texts and change some numbers.
    parameters bytea not null,
    callback_url text,
    max_retries integer not null,
    timeout_seconds integer not null,
    idempotency_key text,
    fingerprint bytea not null,
    status text not null check (status in ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    attempts integer not null,
    result bytea,
    error_type text,
    error_code text,
    error_message text,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    started_at timestamptz,
    finished_at timestamptz,
    check ((finished_at is not null) = (status in ('succeeded', 'failed', 'cancelled')))
);
create unique index jobs_idempotency_key on jobs (account_id, idempotency_key) where idempotency_key is not null;
create index jobs_of_account on jobs (account_id, created_at, id);
create index jobs_unfinished_of_account on jobs (account_id) where finished_at is null;
create index jobs_expires_at on jobs (expires_at) where finished_at is null;
create index jobs_finished_at on jobs (finished_at) where finished_at is not null;
