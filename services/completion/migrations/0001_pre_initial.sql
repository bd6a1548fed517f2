-- What came of each request; one that was tried again has a row for each time.
create table requests (
    id bigint generated always as identity primary key,
    request_id text not null,
    account_id text not null,
    key_id text not null,
    model text not null,
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
