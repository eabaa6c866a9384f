"""A dialogue with a database: a class that smsd opens at startup and closes at shutdown."""

import sqlite3

from smsd import Message, Session


class Diary:
    def open(self) -> None:
        self.db = sqlite3.connect("diary.db")
        self.db.execute("create table if not exists entry (sid text primary key, body text)")

    def close(self) -> None:
        self.db.close()

    async def __call__(self, message: Message, session: Session) -> str:
        with (
            self.db
        ):  # the sid is the key: if the dialogue runs twice, the second insert is ignored
            self.db.execute(
                "insert or ignore into entry values (?, ?)", (message.sid, message.body)
            )
        (count,) = self.db.execute("select count(*) from entry").fetchone()
        return f"Dear diary now has {count}."
