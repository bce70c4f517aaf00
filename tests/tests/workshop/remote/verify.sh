# Blocks with checksums in them, written at random and read back.
fio --name=random --directory=. --rw=randwrite --bs=4k-64k --size=3M --numjobs=2 --ioengine=psync --fallocate=none \
    --verify=crc32c --do_verify=1 --verify_fatal=1 --fsync=64 --minimal >/dev/null
fio --name=mapped --directory=. --rw=randwrite --bs=4k --size=2M --ioengine=mmap --fallocate=none \
    --verify=crc32c --do_verify=1 --verify_fatal=1 --minimal >/dev/null
fio --name=direct --directory=. --rw=randwrite --bs=16k --size=2M --ioengine=libaio --direct=1 --iodepth=4 --fallocate=none \
    --verify=crc32c --do_verify=1 --verify_fatal=1 --minimal >/dev/null
rm -f -- mapped* direct* local-*
