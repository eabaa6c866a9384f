"""The reference: a Tornado handler that returns a constant TwiML string. No Tornado
service costs less."""

import asyncio
import sys

from tornado.web import Application, RequestHandler

TWIML = b'<?xml version="1.0" encoding="UTF-8"?><Response><Message>Rey has messaged you</Message></Response>'


class Constant(RequestHandler):
    def post(self) -> None:
        self.set_header("Content-Type", "text/xml; charset=utf-8")
        self.finish(TWIML)


async def main(port: int) -> None:
    Application([("/sms", Constant)]).listen(port, "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
