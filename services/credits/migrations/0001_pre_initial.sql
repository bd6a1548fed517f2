-- All amounts are nano-credits: one credit is 1,000,000,000 of them.

-- `available` and `leased` are the sums of the account's entries in the books of those names. Together they are
-- what the account has; no lease takes more than is available, so neither falls below zero.
create table accounts (
    id text primary key check (id ~ '^[a-z0-9]{1,32}$'),
    name text not null,
    available bigint not null default 0,
    leased bigint not null default 0,
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint accounts_available check (available >= 0),
    constraint accounts_leased check (leased >= 0)
);

-- The ledger. A transfer takes from one book of an account and gives to another, in one row, so that debits
-- equal credits whatever is written. The books of an account: `issued` (where its credits come from),
-- `available` and `leased` (what it has), `revenue` (what its usage cost) and `written_off` (what of that nobody
-- could pay).
create table transfers (
    id uuid not null default uuidv7(),
    -- No foreign key, which would cost a fifth of all rating: who posts has locked the account, and none is deleted.
    account_id text not null,
    kind text not null,
    debit text not null,
    credit text not null,
    nano_credits bigint not null check (nano_credits > 0),
    reference text not null, -- the id of the request, of the lease, or of the posting
    created_at timestamptz not null default now(),
    primary key (created_at, id),
    constraint transfers_kind check (
        (kind, debit, credit) in (
            ('grant', 'issued', 'available'),
            ('adjustment', 'issued', 'available'),
            ('adjustment', 'available', 'issued'),
            ('expiry', 'available', 'issued'),
            ('lease', 'available', 'leased'),
            ('release', 'leased', 'available'),
            ('charge', 'leased', 'revenue'),
            ('charge', 'available', 'revenue'),
            ('write_off', 'written_off', 'revenue'),
            ('refund', 'revenue', 'available')
        )
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

-- What a gateway replica may promise to requests: it has nano_credits - spent - returned. It is open until nothing
-- is left in it, and then never again. Its account's lock is its own.
create table leases (
    id text primary key,
    account_id text not null references accounts,
    holder text not null,
    key_id text not null, -- the key that alone may use it; empty where all keys of the account may
    nano_credits bigint not null check (nano_credits > 0), -- all that was ever moved into it
    spent bigint not null default 0 check (spent >= 0),
    returned bigint not null default 0 check (returned >= 0),
    expires_at timestamptz not null,
    created_at timestamptz not null default now(),
    closed_at timestamptz,
    constraint leases_amounts check (spent + returned <= nano_credits),
    constraint leases_closed check (closed_at is null or spent + returned = nano_credits)
);
create unique index leases_open on leases (account_id, key_id, holder) where closed_at is null;
create index leases_expiry on leases (expires_at) where closed_at is null;
create index leases_past on leases (closed_at) where closed_at is not null;

-- Calls that added to a lease, so that a repeated one adds nothing more.
create table lease_extensions (
    account_id text not null,
    holder text not null,
    request_token text not null,
    lease_id text not null,
    nano_credits bigint not null,
    created_at timestamptz not null default now(),
    primary key (account_id, holder, request_token)
);
create index lease_extensions_past on lease_extensions (created_at);

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
    written_off bigint not null default 0 check (written_off >= 0),
    refunded bigint not null default 0 check (refunded >= 0),
    lease_id text not null,
    estimated boolean not null,
    rated_at timestamptz not null default now(),
    primary key (account_id, finished_at, request_id),
    constraint usage_paid check (written_off + refunded <= nano_credits) -- nothing unpaid is refunded
) partition by range (finished_at);
create table usage_default partition of usage default;

-- What was posted by request, once per idempotency key. One that gives credits keeps count of what is left of
-- them: they are spent in the order of priority, expiry and age. `remaining` is counted when that order can
-- change, that is before others come in and before any expire.
create table postings (
    id text primary key,
    idempotency_key text not null unique,
    kind text not null check (kind in ('grant', 'adjustment', 'refund')),
    account_id text not null references accounts,
    nano_credits bigint not null check (nano_credits > 0 or (nano_credits < 0 and kind = 'adjustment')),
    reason text not null,
    actor text not null,
    request_id text,
    finished_at timestamptz,
    priority smallint not null check (priority between 0 and 100),
    expires_at timestamptz,
    remaining bigint not null,
    created_at timestamptz not null default now(),
    constraint postings_remaining check (remaining between 0 and greatest(nano_credits, 0)),
    constraint postings_refund check ((kind = 'refund') = (request_id is not null)),
    constraint postings_request foreign key (account_id, finished_at, request_id) references usage
);
create index postings_remaining on postings (account_id) where remaining > 0;
create index postings_expiry on postings (expires_at) where remaining > 0;

-- Usage that cannot be charged, set aside for people to look at.
create table unrated_usage (
    request_id text primary key,
    reason text not null,
    record json not null,
    created_at timestamptz not null default now()
);

-- Sums of each hour, day and month (UTC), so that any period is read from few rows.
create table usage_sums (
    account_id text not null,
    step text not null check (step in ('hour', 'day', 'month')),
    start timestamptz not null,
    key_id text not null,
    model text not null,
    operation text not null,
    requests bigint not null,
    nano_credits bigint not null,
    input_tokens bigint not null,
    cached_input_tokens bigint not null,
    output_tokens bigint not null,
    cache_hits bigint not null,
    images bigint not null,
    audio_milliseconds bigint not null,
    characters bigint not null,
    primary key (account_id, step, start, key_id, model, operation)
);

-- What requests of a key that finished in a month (UTC) were charged: what budgets are held against.
create table key_spending (
    account_id text not null,
    key_id text not null,
    month date not null,
    nano_credits bigint not null,
    primary key (account_id, key_id, month)
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
    foreach parent in array array['usage', 'transfers'] loop -- as charging takes them, so that neither waits for ever
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

-- Invoices and statements. Months and days begin in UTC.

-- What an account used in a month, by when requests finished: quantities at each price.
create table invoice_lines (
    account_id text not null,
    month timestamptz not null,
    model text not null,
    price_id text not null,
    unit text not null,
    quantity numeric not null,
    primary key (account_id, month, model, price_id, unit)
);

-- What requests that finished in a month were charged, by the day of posting.
create table invoice_days (
    account_id text not null,
    month timestamptz not null,
    day timestamptz not null,
    requests bigint not null,
    charged numeric not null,
    written_off numeric not null, -- of what was charged
    primary key (account_id, month, day)
);

-- What moves a balance other than usage, which there is a thousand times more of.
create index transfers_posted on transfers (account_id, created_at)
    where kind in ('grant', 'adjustment', 'expiry', 'refund');
create index postings_refunds on postings (account_id, finished_at) where kind = 'refund';

-- Payments at a provider that topped up an account. What was given back of one may be told before it is known
-- whose it is.
create table payments (
    id text primary key, -- also the idempotency key of its grant
    account_id text references accounts,
    currency text,
    amount bigint, -- in the currency's smallest unit
    nano_credits bigint not null default 0,
    collected bigint not null default 0, -- what the provider says was paid, in what it gives back
    given_back bigint not null default 0,
    created_at timestamptz not null default now()
);

-- Comparisons of what services reported, what was rated and what was posted, for requests that finished in a
-- period.
create table reconciliations (
    id text primary key,
    start_at timestamptz not null,
    end_at timestamptz not null check (start_at < end_at),
    automatic boolean not null,
    state text not null default 'running' check (state in ('running', 'complete', 'incomplete')),
    counts jsonb not null default '{}',
    created_at timestamptz not null default now(),
    finished_at timestamptz
);
create unique index reconciliations_running on reconciliations (start_at, end_at) where state = 'running';
create unique index reconciliations_automatic on reconciliations (start_at, end_at) where automatic;
create index reconciliations_created on reconciliations (created_at);

-- How much each service has sent again, of how much; that is null until it says so.
create table reconciliation_services (
    reconciliation_id text not null references reconciliations,
    service text not null,
    received bigint not null default 0,
    records bigint,
    primary key (reconciliation_id, service)
);

-- Requests that were sent again. Kept until all have been compared, so without a reference.
create table recounted_requests (
    reconciliation_id text not null,
    request_id text not null,
    account_id text not null,
    finished_at timestamptz not null,
    nano_credits bigint not null, -- as it was sent again
    outcome text not null,
    differences json not null,
    primary key (reconciliation_id, request_id)
);
create index recounted_requests_found on recounted_requests (reconciliation_id) where outcome <> 'matched';

create table reconciliation_findings (
    reconciliation_id text not null references reconciliations,
    kind text not null,
    account_id text not null,
    reference text not null, -- the id of the request, or what the sums are of
    detail json not null,
    primary key (reconciliation_id, kind, account_id, reference)
);

-- Both tables grow in the order of time, so that an hour of them is found by little more than its blocks.
create index usage_finished on usage using brin (finished_at) with (autosummarize = on);
create index usage_sums_start on usage_sums using brin (start) with (autosummarize = on);
