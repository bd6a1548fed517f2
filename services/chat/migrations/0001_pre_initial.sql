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

-- Responses and conversations, kept for the accounts whose they are.
create table conversations (
    id text primary key,
    account_id text not null,
    metadata jsonb not null,
    created_at timestamptz not null default now(),
    used_at timestamptz not null default now(),
    -- The response that is being given; nobody else adds anything until it has ended, or its replica has.
    turn text,
    turn_ends_at timestamptz
);
create index conversations_used_at on conversations (used_at);
create index conversations_turn on conversations (turn) where turn is not null;

create table conversation_items (
    position bigint generated always as identity,
    conversation_id text not null references conversations on delete cascade,
    id text not null unique,
    body bytea not null,
    primary key (conversation_id, position)
);

create table responses (
    id text primary key,
    account_id text not null,
    conversation_id text references conversations on delete cascade,
    -- Up to this position the response knew its conversation.
    known bigint not null,
    -- Not a foreign key: it may be deleted while its successor is being given.
    previous_id text,
    -- A deleted response is kept while others go on from it.
    deleted boolean not null default false,
    -- Length of all items that belong together, those of earlier responses too.
    context_bytes bigint not null,
    input bytea not null,
    output bytea not null,
    body bytea not null, -- without the output
    created_at timestamptz not null default now()
);
create index responses_previous_id on responses (previous_id) where previous_id is not null;
create index responses_conversation_id on responses (conversation_id) where conversation_id is not null;
create index responses_created_at on responses (created_at);
create index responses_deleted on responses (id) where deleted;
