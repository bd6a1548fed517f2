# Say how much an installation downloads at most; refuse what the lock does not hold, and so has no hash.
NR == FNR { size[$2] = $3; next }
$2 == "+" && $3 ~ /^dozen-/ { next }
$2 == "+" && !($3 in size) { print $3 " is not in requirements.lock: make lock" > "/dev/stderr"; exit refused = 1 }
$2 == "+" { packages++; bytes += size[$3] }
END { if (packages && !refused) printf "Installing %d packages into .venv, at most %d MB to download\n", packages, bytes / 1e6 }
