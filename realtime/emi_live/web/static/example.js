import { EmiSession } from "./emi.js";

document.querySelector("#start").onclick = async () => {
  const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ video: true, audio });
  const session = await EmiSession.open();
  session.addEventListener("estimate", ({ detail }) => {
    document.querySelector("#joy").textContent = `joy ${detail.estimate.intensities.joy.toFixed(2)}`;
  });
  await session.send(stream);
};
