# Small tools that write in ways of their own.
head -c 700000 /dev/urandom >"$ASIDE/bytes"
cp --reflink=auto "$ASIDE/bytes" copied; cmp "$ASIDE/bytes" copied
cp --reflink=auto copied second; cmp "$ASIDE/bytes" second
dd if="$ASIDE/bytes" of=direct bs=64k oflag=direct conv=fsync status=none; cmp "$ASIDE/bytes" direct
dd if=direct of="$ASIDE/read" bs=64k iflag=direct status=none; cmp "$ASIDE/bytes" "$ASIDE/read"
cp "$ASIDE/bytes" "$ASIDE/patched"
for file in "$ASIDE/patched" copied; do
    printf patch | dd of="$file" bs=1 seek=1000 conv=notrunc status=none
    printf more | dd of="$file" oflag=append conv=notrunc status=none
done
cmp "$ASIDE/patched" copied
for worker in 1 2 3; do (for line in $(seq 1 30); do echo "$worker $line" >>log; done) & done; wait
[ "$(wc -l <log)" = 90 ] && [ "$(sort -u log | wc -l)" = 90 ]
mkdir full; touch full/x; ! rmdir full 2>/dev/null; rm -r full
truncate -s 12345 f; [ "$(stat -c %s f)" = 12345 ]; sed -i s/1/one/ log; grep -q one log
mkdir -p a/b/c/d; echo x >a/b/c/d/x; find a -depth -delete; [ ! -e a ]
mkdir from to; echo text >from/file; mv from/file to/file; mv to/file .; [ "$(cat file)" = text ]
rsync -r --inplace --delete "$ASIDE/" synced/ --exclude patched; printf x >>"$ASIDE/bytes"
rsync -r --inplace --delete "$ASIDE/" synced/ --exclude patched; cmp "$ASIDE/bytes" synced/bytes
