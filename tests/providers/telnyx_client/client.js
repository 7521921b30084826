"use strict";
// Telnyx's own client. `verify` prints, for each request on stdin, whether it is accepted as Telnyx's.
// `send URL KEY` sends the message on stdin through the API at that URL, and prints the response.

const fs = require("fs");
const { Telnyx } = require("telnyx");

const given = JSON.parse(fs.readFileSync(0, "utf8"));

async function isAccepted({ body, headers, key }) {
  const client = new Telnyx({ apiKey: "none" });
  try {
    await client.webhooks.unwrap(body, { headers, key });
    return true;
  } catch {
    return false;
  }
}

async function main([command, url, apiKey]) {
  if (command === "verify") return Promise.all(given.map(isAccepted));
  const client = new Telnyx({ apiKey, baseURL: `${url}/v2`, maxRetries: 0 });
  return (await client.messages.send(given)).data;
}

main(process.argv.slice(2)).then((result) => process.stdout.write(JSON.stringify(result)));
