# Saving as editors do it: a new file takes the place of the old one, and whoever reads meanwhile always finds one of them.
import os, threading

def save(text):
    with open("document.tmp", "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename("document.tmp", "document")

save("0" * 5000)
stop, troubles = threading.Event(), []
def read():
    while not stop.is_set():
        try:
            with open("document") as file:
                text = file.read()
            if len(text) != 5000 or len(set(text)) != 1:
                troubles.append(f"{len(text)} bytes of {set(text)}")
        except OSError as error:
            troubles.append(repr(error))
reader = threading.Thread(target=read)
reader.start()
for round in range(25):
    save(str(round % 10) * 5000)
stop.set()
reader.join()
assert not troubles, troubles[:3]
# With a backup that is the old file itself.
os.rename("document", "document~")
with open("document", "w") as file:
    file.write("y" * 5000)
assert open("document~").read() == "4" * 5000
os.rename("document", "document~")
assert open("document~").read() == "y" * 5000
