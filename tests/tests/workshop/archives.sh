# A tree with everything that a disk can hold is copied in by rsync and tar, changed, and copied again.
set -o pipefail
make_tree() {
    mkdir -p "$1/d/deep/er" "$1/empty"
    for number in $(seq 1 200); do echo "file $number" >"$1/d/file-$number"; done
    head -c 3000000 /dev/urandom >"$1/large"
    truncate -s 5000000 "$1/sparse"; echo end >>"$1/sparse"
    ln "$1/large" "$1/d/deep/second-name"; ln "$1/large" "$1/d/deep/er/third-name"
    ln -s ../large "$1/d/link"; ln -s nowhere "$1/dangling"
    mkfifo "$1/pipe"
    chmod 4751 "$1/d/file-1"; chmod 2755 "$1/d"; chmod 000 "$1/d/file-2"; chmod 1777 "$1/empty"
    setfattr -n user.kind -v text "$1/d/file-3"
    setfacl -m u:1234:r,g:1235:rw "$1/d/file-4"; setfacl -d -m u:1234:rwx "$1/empty"
    touch -d '2001-02-03 04:05:06.123456789' "$1/d/file-5"; touch -h -d '1999-01-01' "$1/dangling"
    touch -d '2002-02-02 02:02:02.2' "$1/d/deep"
}
same() { # as rsync sees it: contents, modes, owners, times, links, lists and attributes
    differences=$(rsync -aHAXn --delete --checksum --itemize-changes "$1/" "$2/")
    [ -z "$differences" ] || { echo "$1 and $2 differ: $differences"; exit 1; }
}
make_tree "$ASIDE/original"
[ "$(id -u)" = 0 ] || chmod 600 "$ASIDE/original/d/file-2"

rsync -aHAX --inplace "$ASIDE/original/" copy/
same "$ASIDE/original" "$BENEATH/copy"
[ "$(stat -c %h copy/large)" = 3 ]
head -c 100000 /dev/urandom | dd of="$ASIDE/original/large" bs=1000 seek=500 conv=notrunc status=none
rm -r "$ASIDE/original/d/deep/er"; echo new >"$ASIDE/original/d/new"; chmod 640 "$ASIDE/original/d/file-1"
rsync -aHAX --inplace --delete "$ASIDE/original/" copy/
same "$ASIDE/original" "$BENEATH/copy"
rsync -aHAX --delete --size-only "$ASIDE/original/" copy/
same "$ASIDE/original" "$BENEATH/copy"

mkdir unpacked
tar -C "$ASIDE/original" --acls --xattrs -cf - . | tar -C unpacked --acls --xattrs -xpf -
same "$ASIDE/original" "$BENEATH/unpacked"
cp -a copy again
same "$ASIDE/original" "$BENEATH/again"
# And out of the mount again; names of one file are files of their own there.
rsync -aAX again/ "$ASIDE/back/"
differences=$(rsync -aAXn --delete --checksum --itemize-changes "$ASIDE/original/" "$ASIDE/back/")
[ -z "$differences" ] || { echo "what came back differs: $differences"; exit 1; }
rm -rf again unpacked
[ ! -e "$BENEATH/again" ] && [ ! -e "$BENEATH/unpacked" ]
