-- Files of accounts; their bytes are in the object store under `<account_id>/<id>`.
create table files (
    id text collate "C" primary key, -- rises with the time of creation
    account_id text not null,
    filename text not null,
    purpose text not null,
    content_type text not null,
    bytes bigint not null check (bytes >= 0),
    sha256 text not null,
    created_at timestamptz not null,
    expires_at timestamptz,
    idempotency_key text,
    unique (account_id, idempotency_key)
);
create index files_account_id_id on files (account_id, id);
create index files_account_id_purpose_id on files (account_id, purpose, id);
create index files_expires_at on files (expires_at) where expires_at is not null;

-- What the files of each account take together.
create table usage (
    account_id text primary key,
    bytes bigint not null check (bytes >= 0)
);

-- Objects that no file owns: of uploads that run or were given up, and of deleted files.
create table unowned_objects (
    key text primary key,
    due_at timestamptz not null -- when it may be removed
);
create index unowned_objects_due_at on unowned_objects (due_at);
