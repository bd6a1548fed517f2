-- What came of each request; one that was tried again has a row for each time.
create table requests (
    id bigint generated always as identity primary key,
    request_id text not null,
    account_id text not null,
    key_id text not null,
    model text not null,
    deployment_id text not null,
    stream boolean not null,
    status smallint not null,
    ending text not null,
    input_tokens bigint not null,
    output_tokens bigint not null,
    milliseconds bigint not null,
    first_byte_milliseconds bigint,
    created_at timestamptz not null default now()
);
create index requests_request_id on requests (request_id);
create index requests_created_at on requests (created_at);

-- Where models are served: what the catalogue says, as far as it is about this service.
create table deployments (
    id text primary key,
    model_id text not null,
    address text not null,
    format text not null,
    url text not null,
    upstream_model text not null,
    secret text not null,
    max_requests integer not null
);
create index deployments_model_id on deployments (model_id);

create table registrations (
    model_id text primary key,
    registered_at timestamptz not null
);

-- Answers that are given again, by a hash of account and request.
create table cached_answers (
    key bytea primary key,
    answer bytea not null,
    expires_at timestamptz not null
);
create index cached_answers_expires_at on cached_answers (expires_at);
