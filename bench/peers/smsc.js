"use strict";
// An SMSC that nobody here wrote the protocol of: npm's smpp. It accepts everything at once, and
// reports each delivery right after the response; with a second argument, "hold", it keeps the reports
// until SIGUSR2. First argument: the port. SIGHUP resets all connections; SIGTERM ends it, and it says
// how many messages it took, how many different texts, and how often the most frequent of them.
const smpp = require("smpp");

let submitted = 0;
const texts = new Map();
const sessions = new Set();
let held = process.argv[3] === "hold" ? [] : null;

function report(session, pdu, id) {
  session.deliver_sm({
    source_addr: pdu.destination_addr,
    destination_addr: pdu.source_addr,
    esm_class: 4,
    receipted_message_id: id,
    message_state: 2,
    short_message: `id:${id} sub:001 dlvrd:001 submit date:2601010000 done date:2601010000 stat:DELIVRD err:000 text:`,
  });
}

const server = smpp.createServer((session) => {
  session.on("error", () => {});
  sessions.add(session);
  session.on("close", () => sessions.delete(session));
  session.on("bind_transceiver", (pdu) => session.send(pdu.response()));
  session.on("enquire_link", (pdu) => session.send(pdu.response()));
  session.on("unbind", (pdu) => {
    session.send(pdu.response());
    session.close();
  });
  session.on("submit_sm", (pdu) => {
    submitted += 1;
    const text = pdu.short_message.message;
    texts.set(text, (texts.get(text) || 0) + 1);
    const id = submitted.toString(16).padStart(8, "0");
    session.send(pdu.response({ message_id: id }));
    if (held) held.push([session, pdu, id]);
    else report(session, pdu, id);
  });
});

server.listen(Number(process.argv[2]), "127.0.0.1", () => console.log("listening"));
process.on("SIGUSR2", () => {
  const waiting = held || [];
  held = null;
  // As fast as the network takes them, and no faster.
  const some = () => {
    for (const each of waiting.splice(0, 500)) report(...each);
    if (waiting.length) setImmediate(some);
  };
  some();
});
let said = 0;
setInterval(() => {
  if (submitted !== said) console.log(`so far ${submitted}`);
  said = submitted;
}, 100);
process.on("SIGHUP", () => {
  for (const session of sessions) session.destroy();
});
process.on("SIGTERM", () => {
  const most = Math.max(0, ...new Set(texts.values()));
  console.log(JSON.stringify({ submitted, different: texts.size, most }));
  process.exit(0);
});
