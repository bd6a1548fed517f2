-- All amounts are nano-credits: one credit is 1,000,000,000 of them.

-- `available` is the sum of the account's entries in the book of that name. It falls below zero only by
-- charges for usage that was already served.
create table accounts (
    id text primary key check (id ~ '^[a-z0-9]{1,32}$'),
    name text not null,
    available bigint not null default 0,
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

-- The ledger. A transfer takes from one book of an account and gives to another, in one row, so that debits
-- equal credits whatever is written. The books of an account: `issued` (where its credits come from),
-- `available` (its balance) and `revenue` (what it has spent).
create table transfers (
    id uuid not null default uuidv7(),
    account_id text not null references accounts,
    kind text not null,
    debit text not null,
    credit text not null,
    nano_credits bigint not null check (nano_credits > 0),
    reference text not null, -- a grant's idempotency key, a charge's request id; unique in the table of each
    reason text not null default '',
    created_at timestamptz not null default now(),
    primary key (created_at, id),
    constraint transfers_kind check (
        (kind, debit, credit) in (('grant', 'issued', 'available'), ('charge', 'available', 'revenue'))
    )
) partition by range (created_at);
create table transfers_default partition of transfers default;
create index transfers_account on transfers (account_id, created_at);

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'transfers never change; post another one instead';
end $$;
create trigger transfers_never_change before update or delete on transfers
    for each row execute function refuse_change();

-- The two sides of every transfer; credits are positive.
create view entries as
    select id as transfer_id, account_id, debit as book, -nano_credits as nano_credits, created_at from transfers
    union all
    select id, account_id, credit, nano_credits, created_at from transfers;

create table grants (
    idempotency_key text primary key,
    transfer_id uuid not null default uuidv7(),
    account_id text not null references accounts,
    nano_credits bigint not null,
    reason text not null,
    created_at timestamptz not null default now()
);

-- What models announced; a price never changes.
create table prices (
    id text primary key,
    model_id text not null,
    nano_credits jsonb not null,
    effective_from timestamptz not null
);

-- Every request whose usage was dealt with, so that it happens once. It leads to the row in `usage`, whose
-- partitions cannot have a unique key without a time.
create table reported_requests (
    request_id text primary key,
    finished_at timestamptz not null
);

create table usage (
    account_id text not null,
    finished_at timestamptz not null,
    request_id text not null,
    key_id text not null,
    model text not null,
    deployment_id text not null,
    operation text not null,
    price_id text not null,
    quantities jsonb not null,
    nano_credits bigint not null check (nano_credits >= 0),
    estimated boolean not null,
    rated_at timestamptz not null default now(),
    primary key (account_id, finished_at, request_id)
) partition by range (finished_at);
create table usage_default partition of usage default;

-- Usage that cannot be charged, set aside for people to look at.
create table unrated_usage (
    request_id text primary key,
    reason text not null,
    record json not null,
    created_at timestamptz not null default now()
);

-- Sums of an hour (UTC). A measure is `requests`, `nano_credits` or a unit of the quantities.
create table usage_hours (
    account_id text not null,
    hour timestamptz not null,
    key_id text not null,
    model text not null,
    operation text not null,
    measure text not null,
    amount bigint not null,
    primary key (account_id, hour, key_id, model, operation, measure)
);

-- Makes the partitions of this month and of so many after it, where they are missing. Nothing is written with
-- a time in the future, so the default partitions never hold what belongs into a new one.
create function create_partitions(months_ahead integer) returns void language plpgsql
set timezone = 'UTC' set lock_timeout = '4s' as $$
declare
    parent text;
    month timestamptz;
    partition text;
begin
    perform pg_advisory_xact_lock(hashtext('create_partitions'));
    foreach parent in array array['transfers', 'usage'] loop
        for month in
            select date_trunc('month', now()) + make_interval(months => number)
            from generate_series(0, months_ahead) as number
        loop
            partition := parent || to_char(month, '_YYYY_MM');
            if to_regclass(partition) is null then
                execute format(
                    'create table %I partition of %I for values from (%L) to (%L)',
                    partition, parent, month, month + interval '1 month'
                );
            end if;
        end loop;
    end loop;
end $$;
select create_partitions(3);
