// A peer: Express, express-session in memcached through connect-memcached, Twilio's middleware.
const express = require("express");
const session = require("express-session");
const MemcachedStore = require("connect-memcached")(session);
const client = require("prom-client");
const twilio = require("twilio");

const people = { "+14158675309": "Rey", "+14158675310": "Finn", "+14158675311": "Chewy" };
const messages = new client.Counter({ name: "messages_total", help: "Messages answered." });
const url = new URL(process.env.BENCH_URL);

const app = express();
app.set("trust proxy", 1);
app.use(express.urlencoded({ extended: false }));
app.use(session({
  secret: process.env.BENCH_SECRET,
  resave: false,
  saveUninitialized: true,
  proxy: true,
  cookie: { maxAge: 14400 * 1000, httpOnly: true },
  store: new MemcachedStore({ hosts: [process.env.BENCH_MEMCACHED] }),
}));
app.post(
  "/sms",
  twilio.webhook(process.env.BENCH_TOKEN, { protocol: url.protocol.slice(0, -1), host: url.host }),
  (request, response) => {
    request.session.count = (request.session.count || 0) + 1;
    messages.inc();
    const answer = new twilio.twiml.MessagingResponse();
    const name = people[request.body.From] || "Friend";
    answer.message(`${name} has messaged ${request.body.To} ${request.session.count} times`);
    response.type("text/xml").send(answer.toString());
  },
);
app.listen(Number(process.argv[2]), "127.0.0.1");
